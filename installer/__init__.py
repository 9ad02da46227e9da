"""Install papr-hook from a checkout, as install.sh does once the host has what papr-hook needs."""
