# SPDX-License-Identifier: Apache-2.0
"""Datasets in TFDS's format and RLDS's form, stored in ArrayRecord shards.

Importing this package makes stock `tfds.load` and its siblings read ArrayRecord as tf.data. It imports
neither TensorFlow nor TFDS; where TFDS is not imported yet, the extension takes effect once it is.
"""

from envlogger.tfds import array_record

array_record.register()
