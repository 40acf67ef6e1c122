"""Conversation templates (data/templates.py) as chat templates in Jinja, for plain transformers.

What a rendered chat template says is what render() says, character by character, but for a gap that
some tokenizers need behind the picture (see chat_template).
"""

from __future__ import annotations

from scalesweep.data.readers import IMAGE
from scalesweep.data.templates import CHATML_SYSTEM, LLAMA_2_SYSTEM, VICUNA_SYSTEM
from scalesweep.errors import DataError

# A message's content is text, or parts {"type": "image"} and {"type": "text", "text": ...}. The
# picture goes in front, on its own line, as in normalise_image_mark.
_QUESTION = """\
{%- macro question(content) -%}
{%- set said = namespace(text='', pictures=0) -%}
{%- if content is string -%}
{%- set said.text = content -%}
{%- else -%}
{%- for part in content -%}
{%- if part['type'] == 'image' -%}
{%- set said.pictures = said.pictures + 1 -%}
{%- else -%}
{%- set said.text = said.text + part['text'] -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if said.pictures or '<image>' in said.text -%}
{%- set said.text = said.text | replace('<image>', '') | trim -%}
{{- '<image>' -}}
{%- if said.text -%}{{- @GAP@'\\n' + said.text -}}{%- endif -%}
{%- else -%}
{{- said.text -}}
{%- endif -%}
{%- endmacro -%}
{%- macro answer(content) -%}
{%- if content is string -%}
{{- content -}}
{%- else -%}
{%- for part in content -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""

_SYSTEM = """\
{%- set ns = namespace(system=@SYSTEM@, asked=0) -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- set ns.system = answer(message['content']) -%}
{%- elif message['role'] == 'user' -%}
"""

_ANSWER = """\
{%- set ns.asked = ns.asked + 1 -%}
{%- else -%}
@ANSWER@
{%- endif -%}
{%- endfor -%}
"""

_USER_ASSISTANT = """\
{{- 'USER: ' + question(message['content']) -}}
{%- if add_generation_prompt or not loop.last -%}{{- ' ASSISTANT:' -}}{%- endif -%}
"""

_VICUNA = """\
{%- if not ns.asked and ns.system -%}{{- ns.system + ' ' -}}{%- endif -%}
"""

_MINI = """\
{%- if ns.asked -%}{{- ' ' -}}{%- endif -%}
"""

_LLAMA_2 = """\
{%- if ns.asked -%}{{- bos_token -}}{%- endif -%}
{{- '[INST] ' -}}
{%- if not ns.asked and ns.system -%}
{{- '<<SYS>>\\n' + ns.system + '\\n<</SYS>>\\n\\n' -}}
{%- endif -%}
{{- question(message['content']) + ' [/INST]' -}}
"""

_CHATML = """\
{%- if not ns.asked -%}{{- '<|im_start|>system\\n' + ns.system + '<|im_end|>\\n' -}}{%- endif -%}
{{- '<|im_start|>user\\n' + question(message['content']) + '<|im_end|>\\n' -}}
{%- if add_generation_prompt or not loop.last -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

_SPACE_EOS = "{{- ' ' + answer(message['content']) + ' ' + eos_token -}}"
_EOS = "{{- ' ' + answer(message['content']) + eos_token -}}"

_IM_END = "{{- answer(message['content']) + '<|im_end|>\\n' -}}"

_CHATS = {
    "vicuna_v1": (VICUNA_SYSTEM, _VICUNA + _USER_ASSISTANT, _EOS),
    "llama_2": (LLAMA_2_SYSTEM, _LLAMA_2, _SPACE_EOS),
    "chatml": (CHATML_SYSTEM, _CHATML, _IM_END),
    "mini": ("", _MINI + _USER_ASSISTANT, _SPACE_EOS),
}
"""Template -> what a system message replaces, a question, an answer."""


def chat_template(template: str, *, gap: str = "") -> str:
    """A conversation template in Jinja; what the tokenizer puts in front (BOS) is left to it.

    gap: put between the picture and the line break. Text behind a picture is tokenized as a piece
        of its own, as in the official code, and LLaMA's tokenizers begin one with "▁"; where a
        tokenizer does that only at the very beginning, a space in this place gives the same ids.

    Raises:
        DataError: there is no such template for conversations.
    """
    if template not in _CHATS:
        raise DataError(
            f"template {template!r} has no chat template; those that have are {', '.join(_CHATS)}"
        )
    system, asked, said = _CHATS[template]
    gap_text = f"'{gap}' + " if gap else ""
    return (
        _QUESTION.replace("@GAP@", gap_text).replace("'<image>'", f"'{IMAGE}'")
        + _SYSTEM.replace("@SYSTEM@", _quoted(system))
        + asked
        + _ANSWER.replace("@ANSWER@\n", f"{said}\n")
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
