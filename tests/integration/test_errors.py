"""Errors raised in any Ray process reach the user as one sentence, whatever Ray wraps them in."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
import ray
import ray.data
from ray.data import ActorPoolStrategy, Datasink

from mribatch.cluster.session import session
from mribatch.errors import ModelError, MribatchError, RunFailed

pytestmark = pytest.mark.usefixtures("ray_session")

OURS = "weights.h5 in m has another SHA-256: copy the model directory again"
Make = Callable[[], Exception]  # makes an error where it is raised: some cannot be sent there


class Unpicklable(ValueError):
    """An error that cannot be pickled, as many C libraries raise."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.handle = (item for item in ())


def ours() -> Exception:
    return ModelError(OURS)


FOREIGN: dict[str, tuple[Make, str]] = {
    "plain": (partial(ValueError, "first line\nit does not fit"), "ValueError: it does not fit"),
    "empty": (KeyError, "KeyError"),
    "unpicklable": (partial(Unpicklable, "no way out"), "Unpicklable: no way out"),
}


def fail(make: Make, *_: Any) -> Any:
    raise make()


class Failing:
    def __init__(self, at_start: Make | None, at_work: Make) -> None:
        if at_start is not None:
            raise at_start()
        self._make = at_work

    def work(self) -> None:
        raise self._make()

    def __call__(self, block: pa.Table) -> pa.Table:  # noqa: ARG002 - Ray's signature
        raise self._make()


class FailingSink(Datasink[None]):
    def __init__(self, make: Make) -> None:
        self._make = make

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:  # noqa: ARG002 - Ray's signature
        raise self._make()


def rows() -> "ray.data.Dataset":
    return ray.data.from_arrow(pa.table({"n": [1, 2, 3]}))


def in_a_task(make: Make) -> None:
    ray.get(ray.remote(max_retries=0)(fail).remote(make))


def in_a_task_of_a_task(make: Make) -> None:
    def outer() -> None:
        ray.get(ray.remote(max_retries=0)(fail).remote(make))

    ray.get(ray.remote(max_retries=0)(outer).remote())


def in_an_actor(make: Make) -> None:
    ray.get(ray.remote(Failing).remote(None, make).work.remote())


def in_the_constructor_of_an_actor(make: Make) -> None:
    ray.get(ray.remote(Failing).remote(make, make).work.remote())


def in_a_function_over_blocks(make: Make) -> None:
    rows().map_batches(partial(fail, make), batch_format="pyarrow").materialize()


def in_an_actor_over_blocks(make: Make) -> None:
    rows().map_batches(
        Failing,
        fn_constructor_args=(None, make),
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=1),
        num_cpus=0,  # an actor that outlives its test must not hold a core of the session
    ).materialize()


def in_the_constructor_of_an_actor_over_blocks(make: Make) -> None:
    rows().map_batches(
        Failing,
        fn_constructor_args=(make, make),
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=1),
        num_cpus=0,  # an actor that outlives its test must not hold a core of the session
    ).materialize()


def in_a_sink(make: Make) -> None:
    rows().write_datasink(FailingSink(make))


PLACES = [
    in_a_task,
    in_a_task_of_a_task,
    in_an_actor,
    in_the_constructor_of_an_actor,
    in_a_function_over_blocks,
    in_an_actor_over_blocks,
    in_the_constructor_of_an_actor_over_blocks,
    in_a_sink,
]


@pytest.mark.parametrize("place", PLACES)
def test_an_error_of_the_package_keeps_its_class_and_its_message(place: Callable[[Make], None]) -> None:
    with pytest.raises(MribatchError) as caught, session():
        place(ours)
    assert type(caught.value) is ModelError
    assert str(caught.value) == OURS


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("place", PLACES)
def test_any_other_error_is_reported_in_one_line_that_points_to_the_logs(
    place: Callable[[Make], None], kind: str
) -> None:
    make, words = FOREIGN[kind]
    with pytest.raises(RunFailed) as caught, session():
        place(make)
    message = str(caught.value)
    assert "\n" not in message
    assert words in message
    assert "session_latest/logs" in message
    assert len(message) < 600
