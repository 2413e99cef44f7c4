"""Programs that tests start with four devices, and what each compares with one of them."""
