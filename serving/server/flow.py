"""When a connection reads: not while its client reads nothing, and not while received bytes wait to be parsed."""

from __future__ import annotations

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Pauses reading also while :meth:`hold` asks for it: for example while received bytes wait to be parsed."""

    _is_held = False

    def hold(self, is_held: bool) -> None:
        self._is_held = is_held
        if is_held:
            self.pause_reading()
        else:
            self.resume_reading()

    def resume_reading(self) -> None:
        if not self._is_held:
            super().resume_reading()
