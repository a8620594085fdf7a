"""What every step of the protocol needs: its share of the time, running programs, a record of what came of it."""
import os
import signal
import subprocess
import textwrap
import time


class Failed(Exception):
    """What is wrong. `details` as of a step that passed."""

    def __init__(self, remark, details=None):
        super().__init__(remark)
        self.details = details


class NotRun(Exception):
    """Why there is nothing to say."""


class Step:
    """One line of the table. work(step) returns (remark, details), or raises."""

    def __init__(self, name, seconds, work):
        self.name, self.seconds, self.work = name, seconds, work
        self.end = 0

    def left(self):
        return self.end - time.monotonic()

    def start(self, words, environment=None, seconds=None, check=True):
        """Runs a program; returns its exit code and output. Its children end with it when the time is up."""
        seconds = min(seconds or self.left(), self.left())
        words = [str(word) for word in words]
        name = os.path.basename(words[0])
        try:
            process = subprocess.Popen(words, env=dict(os.environ, **environment or {}), text=True, errors="replace",
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            raise Failed("%s: %s" % (name, error.strerror))
        late = False
        try:
            out, err = process.communicate(timeout=max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            late = True
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        if late:
            out, err = process.communicate()
        result = subprocess.CompletedProcess(words, None if late else process.returncode, out, err)
        if check and result.returncode != 0:
            why = "no end after %.0f s" % seconds if late else "exit code %d" % result.returncode
            last = next((row for row in reversed((out + err).splitlines()) if row.strip()), "no output")
            raise Failed("%s: %s: %s" % (name, why, last), {"command": " ".join(words), "output": (out + err)[-4000:]})
        return result

    def run(self, deadline):
        """The record."""
        begin = time.monotonic()
        self.end = min(begin + self.seconds, deadline)
        details = None
        try:
            if deadline - begin < 3:
                raise NotRun("the time is up")
            remark, details = self.work(self)
            status = "passed"
        except NotRun as reason:
            status, remark = "not run", str(reason)
        except Failed as failure:
            status, remark, details = "failed", str(failure), failure.details
        except Exception as error:  # of the protocol itself: the other steps go on
            status, remark = "failed", "%s: %s" % (type(error).__name__, error)
        return {"name": self.name, "status": status, "remark": remark,
                "seconds": round(time.monotonic() - begin, 1), "details": details}


def line(record):
    """Of the table: 80 columns, the remark wrapped."""
    head = "%-22s %-7s %5.1f  " % (record["name"], record["status"], record["seconds"])
    rows = textwrap.wrap(" ".join(record["remark"].split()), 80 - len(head), max_lines=5) or [""]
    return "\n".join([head + rows[0]] + [" " * len(head) + row for row in rows[1:]])
