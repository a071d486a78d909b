"""Side-by-side measurements; `make bench` runs them all, `make bench NAME=demo` one."""
