"""The gateway: it listens where libvirt's socket was, and lays out guests on their way to libvirt.

Processes
    main      Accepts clients. It reads nothing of them but the credentials that the kernel has, and hands each to the
              relay of its identity. (server.py)
    relay     One for each identity, which is a uid, a gid and groups. It assumes that identity, connects each of its
              clients to libvirt by a connection of its own, and passes packets both ways. (relay.py, connection.py,
              streams.py, session.py)
    nursery   Has loaded what a rewrite needs, and forks workers. It reads nothing of a client. (nursery.py)
    worker    Rewrites calls of one relay, one after another, and ends after some seconds. It has the identity of its
              relay, one socket to it, and limits of CPU time, lifetime and memory that the kernel enforces.
              (worker.py, limits.py, rewrite.py)
    Relays and the nursery go on when the main process ends, until their last client has gone.

Identity
    libvirt asks the kernel who has called connect(2), and decides by its socket's mode and by polkit. A relay has
    assumed the client's uid, gid and groups by then, for good. So nothing in here decides who may do what, and a fault
    in a relay or a worker has no rights that the client has not. Identities do not share a relay. libvirt sees the
    relay's process id, which all clients of one identity share.

Trust
    Nothing of a client is looked at until libvirt has let it in, which is when CONNECT_OPEN has succeeded: until then
    only the boundaries of packets count. Nothing of a client is ever parsed in a process that serves a connection.
    A worker's answers are data: at most, they are what the client could have sent to libvirt itself.

Calls of the gateway's own
    What a rewrite asks libvirt goes out on the client's connection, so the client's rights apply. Serials from
    0x80000000 are for such calls. Replies are matched by program, procedure and serial, and a client's call with a
    serial in use waits, so that no reply is taken for another one. No reply to such a call reaches the client.

Limits
    5 calls of a connection are rewritten at the same time, 16 of an identity, 64 of all. Further calls wait. 8 MiB of a
    connection's calls are held. A call is held for 15 s at most. A worker has 5 s of CPU time and 20 s for a call, and
    256 MiB of address space. It takes calls for 10 s, and waits 2 s for the next one. 10 connections of a user may wait
    for libvirt to let them in. A packet has at most 128 KiB before that, and libvirt's own limit after it. A side that
    does not read has at most one packet and 256 KiB waiting for it. An attach lock expires after 30 s. A process writes
    20 lines to the journal in 10 s.

Failures
    Whatever goes wrong with a rewrite, the client's own call is forwarded unmodified, and the journal has one line.
    There are two exceptions. A device for which its guest has no vPHB: that call fails with the reason. A revert in
    place of one that starts the guest: once sent, it is never sent again, and only the start follows. Malformed packets
    end their own connection. If memory runs out, workers are killed first, relays next, and the main process last.
"""
