"""The client of any vision-language model, its recording and its prompts."""
