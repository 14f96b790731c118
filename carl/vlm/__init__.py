"""The client of any vision-language model behind OpenAI's chat completions, its recording and its prompts."""
