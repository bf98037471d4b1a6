"""Conversation formats: rendered conversations with the spans of their parts, and parsed completions."""

from rlt_data.formats.control import find_control_token, require_end_token
from rlt_data.formats.definition import (
    BUILT_IN,
    ConversationFormat,
    StudentFormat,
    TeacherFormat,
    list_formats,
    load_built_in,
    load_format,
)
from rlt_data.formats.parsing import (
    ParsedTrace,
    find_response,
    parse_student_completion,
    parse_teacher_completion,
)
from rlt_data.formats.rendering import (
    RenderedText,
    build_student_messages,
    build_teacher_messages,
    render_student_prompt,
    render_student_text,
    render_teacher_prompt,
    render_teacher_text,
)
from rlt_data.formats.spans import EncodedText, compare_tokenizers, encode_texts, select_token_span
from rlt_data.formats.template_check import Role, check_template, find_opened_thinking, keeps_thinking

__all__ = [
    "BUILT_IN",
    "ConversationFormat",
    "EncodedText",
    "ParsedTrace",
    "RenderedText",
    "Role",
    "StudentFormat",
    "TeacherFormat",
    "build_student_messages",
    "build_teacher_messages",
    "check_template",
    "compare_tokenizers",
    "encode_texts",
    "find_control_token",
    "find_opened_thinking",
    "find_response",
    "keeps_thinking",
    "list_formats",
    "load_built_in",
    "load_format",
    "parse_student_completion",
    "parse_teacher_completion",
    "render_student_prompt",
    "render_student_text",
    "render_teacher_prompt",
    "render_teacher_text",
    "require_end_token",
    "select_token_span",
]
