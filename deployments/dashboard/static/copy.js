// The request of the page as curl and as Python, to copy; never with a key.

import { $, copyText } from "./common.js";

export function showCode(body) {
  const url = new URL("v1", location.href).href;
  const json = JSON.stringify(body, null, 2);
  $("code-curl").textContent = `curl ${url}/chat/completions \\\n  -H 'content-type: application/json' \\\n  -H "authorization: Bearer $TO_ROUTER_KEY" \\\n  -d '${json.replaceAll("'", "'\\''")}'`;
  const extra = body.routing ? `,\n    extra_body=${python({ routing: body.routing })}` : "";
  $("code-python").textContent = `import os\n\nfrom openai import OpenAI\n\nclient = OpenAI(base_url=${JSON.stringify(url)}, api_key=os.environ.get("TO_ROUTER_KEY", "none"))\nanswer = client.chat.completions.create(\n    model=${JSON.stringify(body.model)},\n    messages=${python(body.messages)}${extra},\n)\nprint(answer.choices[0].message.content)`;
}

// JSON strings, numbers, lists and objects are Python too.
const python = (value) => JSON.stringify(value);

export async function copy(what) {
  const copied = await copyText($(`code-${what}`));
  $("copied").textContent = copied ? "copied" : "selected: copy it with your keyboard";
}
