"""Teacher actors: replicas of the label service (raydc.label_service) on Ray.

If an actor dies, Ray starts it anew and sends open requests again (labelling is a pure function, so
at-least-once is enough); what it had in memory is loaded from the store.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import ray

from raydc.label_service import LabelService
from raydc.orchestration.routing import replica_for
from raydc.orchestration.site import Site
from raydc.spec.plan import LabelPass


@ray.remote
class TeacherActor:
    """One replica of the label service."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._service: LabelService | None = None

    async def label(self, label_pass: LabelPass) -> int:
        """As `LabelService.label`."""
        if self._service is None:
            self._service = LabelService(self._site.bench())
        return await self._service.label(label_pass)

    async def ready(self) -> bool:
        """Answers when the actor has started."""
        return True

    async def pid(self) -> int:
        """Process id, for those who look after processes."""
        return os.getpid()


class TeacherPool:
    """The replicas as their clients see them; it may be sent to other processes."""

    def __init__(self, replicas: Sequence[Any]) -> None:
        self.replicas = list(replicas)

    @staticmethod
    def start(site: Site, replicas: int, options: dict[str, Any]) -> TeacherPool:
        """Start replicas that outlive their failures."""
        remote_class: Any = TeacherActor
        actor = remote_class.options(max_restarts=-1, max_task_retries=-1, **options)
        return TeacherPool([actor.remote(site) for _ in range(replicas)])

    def ask(self, label_pass: LabelPass) -> Any:
        """Ask for a pass; the reference is ready when the pass is in the store."""
        checkpoint = f"{label_pass.trajectory}-{label_pass.epoch}"
        return self.replicas[replica_for(checkpoint, len(self.replicas))].label.remote(label_pass)

    def ensure(self, label_pass: LabelPass) -> None:
        """Return when the pass is in the store (`raydc.workbench.Labeller`)."""
        ray.get(self.ask(label_pass))

    def stop(self) -> None:
        for replica in self.replicas:
            ray.kill(replica)
