// Everything public.
#pragma once

#include <polyhead/attention.h>
#include <polyhead/error.h>
#include <polyhead/io.h>
#include <polyhead/kv_cache.h>
#include <polyhead/linear.h>
#include <polyhead/multihead_attention.h>
#include <polyhead/report.h>
#include <polyhead/runtime.h>
#include <polyhead/score_mod.h>
#include <polyhead/tensor_view.h>
