"""Where people and programs come in: parse, call one method, render. No mathematics."""
