"""Typed, frozen configuration: declare once in a component, override by name, save with the run."""

from ufo_large.config.choice import choice, choice_of_entries
from ufo_large.config.credentials import without_credentials
from ufo_large.config.durations import seconds_of
from ufo_large.config.fields import settings
from ufo_large.config.inside import outside, require_inside
from ufo_large.config.json_files import LARGE_BYTES, Unreadable, parse_json, read_json, write_json
from ufo_large.config.near_names import did_you_mean
from ufo_large.config.overrides import apply_overrides
from ufo_large.config.per_task import per_task, with_tasks_renamed
from ufo_large.config.plugins import add_plugin_option, import_named, load_plugins, loaded_plugins, register
from ufo_large.config.problems import Problems
from ufo_large.config.serialize import from_dict, to_dict
from ufo_large.config.utf8 import as_utf8
from ufo_large.config.view_options import add_view_options, chosen_view_options
from ufo_large.config.whole import held, note_full_disk, telling_full_disk, write_text_whole, write_whole
from ufo_large.config.writable import give_usual_rights, require_writable

__all__ = [
    "without_credentials",
    "LARGE_BYTES",
    "Unreadable",
    "parse_json",
    "add_plugin_option",
    "add_view_options",
    "chosen_view_options",
    "register",
    "loaded_plugins",
    "load_plugins",
    "import_named",
    "Problems",
    "apply_overrides",
    "as_utf8",
    "per_task",
    "choice",
    "choice_of_entries",
    "did_you_mean",
    "from_dict",
    "give_usual_rights",
    "outside",
    "read_json",
    "require_inside",
    "require_writable",
    "seconds_of",
    "settings",
    "to_dict",
    "held",
    "note_full_disk",
    "telling_full_disk",
    "write_text_whole",
    "write_whole",
    "write_json",
    "with_tasks_renamed",
]
