"""`python -m syntegra_db` runs the command line, as `syntegra-db` does."""

from syntegra_db.cli import main

if __name__ == "__main__":
    main()
