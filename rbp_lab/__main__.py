"""``python -m rbp_lab`` is ``rbp-lab``."""

from rbp_lab.cli import main

if __name__ == "__main__":
    main()
