"""Typical calls of an application, by three client libraries; run in an environment that has them.

`python client_libraries.py URL LIBRARY…`; prints one JSON object: library → case → result.
Imports nothing of ours.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

MODEL = "arithmetic"
QUERY = "What is 12 + 30?"
MESSAGES = [{"role": "user", "content": QUERY}]
NUMBER = {"type": "integer", "enum": [12, 30, 42]}
"""A model with so few parameters never ends a number, nor the blanks between JSON's tokens, by itself:
the enumeration ends the former, `CALM` the latter."""
CALM = {"frequency_penalty": 2.0, "max_tokens": 100}
PARAMETERS = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]}
TOOL = {"type": "function", "function": {"name": "add", "description": "Add", "parameters": PARAMETERS}}
FORCED = {"type": "function", "function": {"name": "add"}}
SCHEMA = {"type": "object", "properties": {"sum": NUMBER}, "required": ["sum"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}

Case = Callable[[], Any]


def with_openai(url: str) -> dict[str, Case]:
    """The openai client, synchronous."""
    import openai

    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)

    def create(**fields: Any) -> Any:
        return client.chat.completions.create(
            **{"model": MODEL, "messages": MESSAGES, "max_tokens": 40, "temperature": 0, **fields}
        )

    def streamed() -> str:
        return "".join(c.choices[0].delta.content or "" for c in create(stream=True) if c.choices)

    def tools() -> Any:
        call = create(tools=[TOOL], tool_choice=FORCED, **CALM).choices[0].message.tool_calls[0]
        return call.function.name, sorted(json.loads(call.function.arguments))

    def error() -> str:
        try:
            create(model="unknown")
        except openai.NotFoundError as not_found:
            return str(not_found.code)
        raise AssertionError("no error was raised")

    return {
        "chat": lambda: create(model="auto").choices[0].message.content,
        "stream": streamed,
        "tools": tools,
        "schema": lambda: sorted(
            json.loads(create(response_format=FORMAT, **CALM).choices[0].message.content)
        ),
        "error": error,
    }


def with_openai_async(url: str) -> dict[str, Case]:
    """The openai client, asynchronous."""
    import openai

    async def create(**fields: Any) -> Any:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
            sent = {"model": MODEL, "messages": MESSAGES, "max_tokens": 40, "temperature": 0, **fields}
            answer = await client.chat.completions.create(**sent)
            if not fields.get("stream"):
                return answer
            return [chunk async for chunk in answer]

    def done(**fields: Any) -> Any:
        return asyncio.run(create(**fields))

    def tools() -> Any:
        call = done(tools=[TOOL], tool_choice=FORCED, **CALM).choices[0].message.tool_calls[0]
        return call.function.name, sorted(json.loads(call.function.arguments))

    def error() -> str:
        try:
            done(model="unknown")
        except openai.NotFoundError as not_found:
            return str(not_found.code)
        raise AssertionError("no error was raised")

    return {
        "chat": lambda: done(model="auto").choices[0].message.content,
        "stream": lambda: "".join(c.choices[0].delta.content or "" for c in done(stream=True) if c.choices),
        "tools": tools,
        "schema": lambda: sorted(json.loads(done(response_format=FORMAT, **CALM).choices[0].message.content)),
        "error": error,
    }


def with_langchain(url: str) -> dict[str, Case]:
    """LangChain's ChatOpenAI."""
    import openai
    from langchain_openai import ChatOpenAI

    def chat(model: str = MODEL, **fields: Any) -> Any:
        settings = {"temperature": 0, "max_tokens": 40, "timeout": 60, **fields}
        return ChatOpenAI(model=model, base_url=url, api_key="none", max_retries=0, **settings)

    def tools() -> Any:
        call = chat(**CALM).bind_tools([TOOL], tool_choice="add").invoke(QUERY).tool_calls[0]
        return call["name"], sorted(call["args"])

    def error() -> str:
        try:
            chat("unknown").invoke(QUERY)
        except openai.NotFoundError as not_found:
            return str(not_found.code)
        raise AssertionError("no error was raised")

    schema = {"title": "answer", **SCHEMA}
    return {
        "chat": lambda: chat("auto").invoke(QUERY).content,
        "stream": lambda: "".join(str(chunk.content) for chunk in chat().stream(QUERY)),
        "tools": tools,
        "schema": lambda: sorted(
            chat(**CALM).with_structured_output(schema, method="json_schema").invoke(QUERY)
        ),
        "error": error,
    }


def with_litellm(url: str) -> dict[str, Case]:
    """The LiteLLM SDK."""
    import litellm

    def create(model: str = MODEL, **fields: Any) -> Any:
        return litellm.completion(
            model=f"openai/{model}",
            messages=MESSAGES,
            api_base=url,
            api_key="none",
            num_retries=0,
            **{"max_tokens": 40, "temperature": 0, "timeout": 60, **fields},
        )

    def tools() -> Any:
        call = create(tools=[TOOL], tool_choice=FORCED, **CALM).choices[0].message.tool_calls[0]
        return call.function.name, sorted(json.loads(call.function.arguments))

    def error() -> str:
        try:
            create("unknown")
        except litellm.NotFoundError as not_found:
            return "model_not_found" if "model_not_found" in str(not_found) else "named by its status: 404"
        raise AssertionError("no error was raised")

    return {
        "chat": lambda: create("auto").choices[0].message.content,
        "stream": lambda: "".join(c.choices[0].delta.content or "" for c in create(stream=True) if c.choices),
        "tools": tools,
        "schema": lambda: sorted(
            json.loads(create(response_format=FORMAT, **CALM).choices[0].message.content)
        ),
        "error": error,
    }


LIBRARIES = {
    "openai": with_openai,
    "openai async": with_openai_async,
    "langchain": with_langchain,
    "litellm": with_litellm,
}


def main(url: str, *libraries: str) -> None:
    """Run every case with the named libraries."""
    results = {name: {case: do() for case, do in LIBRARIES[name](url).items()} for name in libraries}
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
