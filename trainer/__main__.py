"""``python -m trainer``: install the signal handlers first, then import and run the program."""

from trainer.runtime.signals import stop_on_signals

if __name__ == "__main__":
    stop = stop_on_signals()
    import sys

    from trainer.program import main
    from trainer.runtime.garbage import leave_everything

    code = main(sys.argv[1:], stop)
    leave_everything()
    sys.exit(code)
