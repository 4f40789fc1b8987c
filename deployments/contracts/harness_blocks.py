"""Blocks that harnesses write around a human's message, and the message without them.

A harness is a program between a human and the model: an editor, an agent, a chat client. Pure text.
"""

import re
from collections.abc import Iterator

KNOWN_TAGS = (
    # Coding agents in a terminal.
    "system-reminder", "system_warning", "user-prompt-submit-hook", "session-start-hook", "hook_context",
    "hooks_context", "command-name", "command-message", "command-contents", "local-command-stdout",
    "local-command-stderr", "local-command-caveat", "bash-stdout", "bash-stderr", "task-notification",
    "task-reminder", "new-diagnostics", "persisted-output", "environment_context", "user_instructions",
    "turn_aborted", "skill", "available_skills", "agent_skills", "recommended_plugins", "session_context",
    "user-memory-input", "retrieved_memory",
    # Editors and their extensions.
    "environment_details", "environment_info", "workspace_info", "file_content", "folder_content",
    "url_content", "terminal_output", "terminal_state", "workspace_diagnostics", "git_working_state",
    "git_commit", "git_status", "explicit_instructions", "task_progress", "additional_data",
    "additional_metadata", "attached_files", "attachments", "attachment", "current_file", "open_files",
    "open_and_recently_viewed_files", "recently_viewed_files", "edit_history", "linter_errors", "user_info",
    "user_information", "user_rules", "user_context", "user_settings_change", "cursor_rules", "rules",
    "project_layout", "project_context", "custom_instructions", "agent_transcripts", "mcp_file_system",
    "mcp_meta_tools", "mcp_meta_tool_servers", "image_files", "ide_opened_file", "ide_selection",
    "ide_diagnostics", "ephemeral_message", "editor_context", "repo_context", "reminder_instructions",
    "reminder", "tool_references", "todo_list", "conversation_summary", "user_memory", "repo_memory",
    "session_memory", "selected_code", "selection", "timestamp",
    # Agents' own loops and retrieval.
    "context", "tool_result", "tool_results", "function_results", "tool_response", "runtime_information",
    "repository_info", "repository_instructions", "extra_info", "search_results", "retrieved_documents",
    "documents",
)  # fmt: skip
"""Tags of blocks that a harness writes; case, `-` and `_` do not count."""
MESSAGE_TAGS = ("user_query", "user_request", "user_message", "user_input", "command-args", "task")
"""Tags around a human's message: what else is in the text is not read."""
REPLY_TAGS = ("answer", "feedback", "user_feedback", *MESSAGE_TAGS)
"""Tags around a human's words in a text that is a tool's result otherwise."""
RESULT = re.compile(r"\s*(?:\[[a-z_]+(?: for '[^\n]*')?\] Result:|EXECUTION RESULT of \[|OBSERVATION:\n)")
"""How a tool's result begins where a harness writes it as a user message."""
HEADING = re.compile(r"^## My request for Codex:", re.MULTILINE)
"""A heading after which the human's message follows."""
NOTES = frozenset({"[Request interrupted by user]", "[Request interrupted by user for tool use]"})
"""Whole messages that a harness writes."""
MOST_CHARACTERS = 131_072
"""Of a longer text, half of it from the start and half from the end are searched."""
TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9_-]{0,63})(?:\s[^<>]{0,1000}|/)?>")


def plain(name: str) -> str:
    """A tag's name as it is compared: `environmentDetails` is `environment_details`."""
    return name.replace("-", "").replace("_", "").lower()


HARNESS_TAGS = frozenset(map(plain, KNOWN_TAGS))
_MESSAGE = frozenset(map(plain, MESSAGE_TAGS))
_REPLY = frozenset(map(plain, REPLY_TAGS))


def human_words(text: str, harness_tags: frozenset[str] = HARNESS_TAGS) -> str:
    """A human's words in a user message; empty where a harness wrote all of it."""
    if len(text) > MOST_CHARACTERS:
        text = f"{text[: MOST_CHARACTERS // 2]}\n{text[-MOST_CHARACTERS // 2 :]}"
    result = RESULT.match(text) is not None
    words = "".join(_outside(text, harness_tags))
    heading = HEADING.search(words)
    if heading is not None:
        words = words[heading.end() :]
    inner = "\n".join(_inside(words, _REPLY if result else _MESSAGE))
    words = inner if inner.strip() or result else words
    words = words.strip()
    return "" if words in NOTES else words


def _outside(text: str, names: frozenset[str]) -> Iterator[str]:
    """The text around the blocks of these tags."""
    start = 0
    for begin, _, _, end in _blocks(text, names):
        yield text[start:begin]
        start = end
    yield text[start:]


def _inside(text: str, names: frozenset[str]) -> Iterator[str]:
    """The text in the blocks of these tags that begin a line."""
    for begin, inner_begin, inner_end, _ in _blocks(text, names):
        if not text[:begin].rpartition("\n")[2].strip():
            yield text[inner_begin:inner_end]


def _blocks(text: str, names: frozenset[str]) -> list[tuple[int, int, int, int]]:
    """The outermost blocks of these tags: where each begins, its content begins and ends, and it ends.

    A tag that is never closed begins no block.
    """
    if "<" not in text:
        return []
    opened: dict[str, list[tuple[int, int]]] = {}
    found = []
    for tag in TAG.finditer(text):
        name = plain(tag[2])
        if name not in names:
            continue
        if tag[0].endswith("/>"):
            found.append((tag.start(), tag.end(), tag.end(), tag.end()))
        elif not tag[1]:
            opened.setdefault(name, []).append(tag.span())
        elif opened.get(name):
            begin, inner = opened[name].pop()
            found.append((begin, inner, tag.start(), tag.end()))
    outermost: list[tuple[int, int, int, int]] = []
    for block in sorted(found):
        if not outermost or block[0] >= outermost[-1][3]:
            outermost.append(block)
    return outermost
