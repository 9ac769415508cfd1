import signal
import threading

import pytest

from training.strategies.finetuning.signals import TrainingStopped, wish_to_stop

BOTH = [signal.SIGINT, signal.SIGTERM]


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in BOTH]


def test_nobody_wishes_to_stop_at_first() -> None:
    with wish_to_stop() as stop_is_wished:
        assert not stop_is_wished()


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_a_wish_and_interrupts_nothing(number: signal.Signals) -> None:
    with wish_to_stop() as stop_is_wished:
        signal.raise_signal(number)

        assert stop_is_wished()


@pytest.mark.parametrize("first", BOTH)
def test_whoever_presses_ctrl_c_again_is_obeyed_at_once(first: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), wish_to_stop():  # noqa: PT012 - the first of them must not raise
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_is_the_same_wish() -> None:
    with wish_to_stop() as stop_is_wished:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

        assert stop_is_wished()


@pytest.mark.parametrize("number", BOTH)
def test_signals_mean_what_they_meant_when_the_block_ends(number: signal.Signals) -> None:
    before = handlers()

    with wish_to_stop():
        assert handlers() != before
        signal.raise_signal(number)

    assert handlers() == before


def test_signals_mean_what_they_meant_when_the_block_fails() -> None:
    before = handlers()

    with pytest.raises(KeyboardInterrupt), wish_to_stop():  # noqa: PT012 - likewise
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), wish_to_stop():
        raise ZeroDivisionError

    assert handlers() == before


def test_a_wish_does_not_outlive_its_block() -> None:
    with wish_to_stop():
        signal.raise_signal(signal.SIGINT)

    with wish_to_stop() as stop_is_wished:
        assert not stop_is_wished()


def test_another_thread_leaves_signals_alone() -> None:
    before, found = handlers(), []

    def work() -> None:
        with wish_to_stop() as stop_is_wished:
            found.append((stop_is_wished(), handlers()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert found == [(False, before)]


def test_a_stopped_training_counts_as_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt, match="go on with --resume"):
        raise TrainingStopped("stopped; go on with --resume")
