"""What is learnt: networks, their artifacts, fitting and predicting. TensorFlow and Keras live here only."""
