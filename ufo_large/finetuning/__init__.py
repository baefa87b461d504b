"""From a folder of someone's data to a finetuned run: what launchers/finetune.py does."""
