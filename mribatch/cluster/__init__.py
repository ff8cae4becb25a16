"""Run work on Ray: sessions, nodes, decoding, guarded predictors, the sink, progress.

This file sets what Ray reads when it is imported; Python runs it before any module of this folder.
"""

import os

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; else it warns at each start
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray Data's own actor pools log an "error" at each start
# Ray's reports of workers that died: the run continues, or says why not
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "[Ff]ailed|died|marked dead")
# `streaming` limits what waits for a predictor; by default the limit holds only when half of the object store is full
os.environ.setdefault("RAY_DATA_DOWNSTREAM_CAPACITY_OBJECT_STORE_BUDGET_UTIL_THRESHOLD", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
