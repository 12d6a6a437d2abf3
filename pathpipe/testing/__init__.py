"""What a plug-in's author needs to test a part: builders of inputs and contracts every part must keep."""
