"""Many requests, as many at once as the model answers; meanwhile the pictures of the next one are read."""

from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import get_ident

from smolvlm_edge.conversation.request import Request
from smolvlm_edge.errors import RequestError
from smolvlm_edge.generation.answer import Answer, GenerateOptions
from smolvlm_edge.generation.stopping import Stop

Outcome = Answer | Exception


class Many:
    """What `SmolVLM.generate_many` gives."""

    def __init__(
        self, answer: Callable[[Request, Stop, int], Answer], width: int, options: GenerateOptions, *, ordered: bool
    ) -> None:
        """Ask nothing yet.

        Args:
            answer: Answers one request, for a thread that waits for it in another one; asks `Stop` whether to go on.
            width: How many the model answers at once.
            options: For every request, unless it has its own.
            ordered: Whether answers come in the order of the requests.
        """
        self._answer, self._width, self._options, self._is_ordered = answer, width, options, ordered
        self._stops: list[Stop] = []
        self._ended = False

    def ordered(self, requests: Iterable[Request]) -> Generator[Outcome, None, None]:
        """The answers alone."""
        for _, outcome in self.numbered(requests):
            yield outcome

    def numbered(self, requests: Iterable[Request]) -> Generator[tuple[int, Outcome], None, None]:
        """The answers, each with the number of its request."""
        pool, asking = ThreadPoolExecutor(self._width + 1, "smol-edge answers"), get_ident()
        submitted = enumerate(pool.submit(self._one, request, asking) for request in requests)
        under_way: dict[Future[Answer], int] = {}
        more, cancelled = True, Stop(self._options.get("cancel"))
        try:
            while more or under_way:
                # an answer that is slow stops none behind it, but those that wait to be read are bounded too
                while more and len(under_way) < 2 * self._width and len(_undone(under_way)) <= self._width:
                    number, future = next(submitted, (-1, None))
                    if future is None:
                        more = False
                    else:
                        under_way[future] = number
                if (ready := self._ready(under_way)) is not None:
                    cancelled.check()
                    yield under_way.pop(ready), self._outcome(ready)
                elif under_way:
                    wait(_undone(under_way), return_when=FIRST_COMPLETED)
        finally:
            self._ended = True
            for stop in list(self._stops):
                stop.request()
            pool.shutdown(cancel_futures=True)

    def _ready(self, under_way: dict[Future[Answer], int]) -> Future[Answer] | None:
        """The answer that comes next, if it is there."""
        candidates = list(under_way)[:1] if self._is_ordered else under_way
        return next((future for future in candidates if future.done()), None)

    def _one(self, request: Request, asking: int) -> Answer:
        if not isinstance(request, Mapping):
            raise RequestError(
                f"a request is keywords of generate, as in {{'prompt': 'describe'}}, not {type(request).__name__}"
            )
        wish = Request(**{**self._options, **request})
        stop = Stop(wish.get("cancel"), wish.get("timeout"))
        self._stops.append(stop)
        if self._ended:
            stop.request()
        try:
            return self._answer(wish, stop, asking)
        finally:
            self._stops.remove(stop)

    def _outcome(self, future: Future[Answer]) -> Outcome:
        error = future.exception()
        if error is None:
            return future.result()
        if not isinstance(error, Exception):
            raise error
        error.__cause__ = error.__context__ = None  # they and the traceback hold on to half-decoded pictures
        return error.with_traceback(None)


def _undone(futures: Iterable[Future[Answer]]) -> list[Future[Answer]]:
    return [future for future in futures if not future.done()]
