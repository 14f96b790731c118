"""A vision-language model behind OpenAI's chat completions on Ray Serve."""
