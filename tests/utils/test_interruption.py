import signal
import threading

import pytest

from utils.interruption import Interruption


def test_first_ctrl_c_is_noted_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    with Interruption("one moment") as interruption:
        assert not interruption.is_requested
        signal.raise_signal(signal.SIGINT)
        assert interruption.is_requested
    assert capsys.readouterr().err == "\none moment\n"


def test_second_ctrl_c_ends_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption("one moment"):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("error", [None, ValueError])
def test_afterwards_ctrl_c_is_what_it_was(error: type[Exception] | None) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        with Interruption("one moment"):
            assert signal.getsignal(signal.SIGINT) is not before
            if error is not None:
                raise error
    except ValueError:
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with Interruption("one moment"):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
    assert signal.getsignal(signal.SIGINT) is before
