"""`smol-edge serve`: models over HTTP, in the protocol of OpenAI's clients, and a page to try them.

    settings.py    what the one who starts it decides: who may ask, and how much
    app.py         the routes; which error becomes which answer
    guards.py      who may ask: Host, Origin, API keys; how large a body may be
    residents.py   models by name, loaded and unloaded
    slots.py       how many are answered, and how many wait
    answering.py   an answer under way: chunks, progress, clients that leave
    sources.py     what stands for a picture in a request -> its bytes; fetching.py, uploads.py
    protocol/      the bodies, typed; one file a dialect
    endpoints/     one file for each kind of request: read, ask the model, word the answer
    page/          the page, as it is sent

Needs the extra [server]: Starlette on uvicorn, msgspec for the bodies, the Prometheus client.
"""
