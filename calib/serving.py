"""A helper's own end: do the job that came, answer in JSON lines, end the process."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from claspkit.profiles.errors import ClaspError

Tell = Callable[..., None]
"""Sends its keyword arguments to the parent, one JSON object a line."""


def serve_job(job: bytes, work: Callable[[dict[str, Any], Tell], None]) -> NoReturn:
    """Do ``work`` with a job and end the process.

    Args:
        job: a JSON object.
        work: takes the job and what to answer with. A ClaspError of its is answered as ``{"error", "text"}`` with the
            name of its kind; any other goes to standard error.
    """
    answers = os.dup(1)
    os.dup2(2, 1)  # nothing that a library prints may pass for an answer

    def tell(**message: Any) -> None:
        os.write(answers, json.dumps(message).encode() + b"\n")

    status = 1
    try:
        work(json.loads(job), tell)
        status = 0
    except ClaspError as error:
        tell(error=type(error).__name__, text=str(error))
    except KeyboardInterrupt:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)  # the thread that listens would hold up an ordinary end
