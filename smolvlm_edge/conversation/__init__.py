"""What is asked, in every form that it comes in -> what the model reads."""
