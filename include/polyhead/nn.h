// polyhead::nn, a small library beside the attention module: what it takes to train a model of it.
//
//   find_package(polyhead) ... target_link_libraries(program PRIVATE polyhead::nn)
//
// Layers are values with a forward and a backward; there is no graph: a program calls the backwards
// in the opposite order of its forwards. A backward is given the input of its forward again, so
// nothing is saved between them. Every result has the same bits for any number of threads and on
// every instruction set with fused multiply-add.
#pragma once

#include <polyhead/nn/checkpoint.h>
#include <polyhead/nn/functions.h>
#include <polyhead/nn/layers.h>
#include <polyhead/nn/optimizer.h>
#include <polyhead/nn/parameter.h>
#include <polyhead/nn/random.h>
#include <polyhead/polyhead.h>
