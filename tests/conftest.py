"""What every test runs under. Set before anything is imported, and inherited by child processes."""

import os
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")

# A shell without job control starts background jobs with SIGINT ignored, and children inherit that: the tests that
# press Ctrl-C in processes of their own would then wait for something that never comes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
