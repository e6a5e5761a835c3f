"""What a member does for its files beyond the protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pspd.core.model.manifest import FileId
from pspd.store.files.disk import ExternalChanges


@dataclass(frozen=True, slots=True)
class FileHooks:
    """Further work for the files of a member.

    Attributes:
        unpack_job: returns the work that a thread does before a verified file is finished; None for none.
        on_finished: called with each file that has become visible.
        external_changes: returns which finished files somebody else has removed or changed.
    """

    unpack_job: Callable[[FileId], Callable[[], None] | None] = lambda _: None
    on_finished: Callable[[FileId], None] = lambda _: None
    external_changes: Callable[[], ExternalChanges] = lambda: ExternalChanges({}, [])


NO_HOOKS = FileHooks()
