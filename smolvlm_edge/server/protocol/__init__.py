"""The bodies of requests and answers, typed; unknown fields are ignored. `/openapi.json` derives from them."""
