"""``python -m trainer``: signals first, so that a stop is clean however early it comes."""

from trainer.runtime.signals import stop_on_signals

if __name__ == "__main__":
    stop = stop_on_signals()
    import sys

    from trainer.program import main

    sys.exit(main(sys.argv[1:], stop))
