// What the two module classes have in common, seen from C, and their handles.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/message.h"
#include "c_api/convert.h"
#include "c_api/guard.h"

namespace polyhead::c_api {

constexpr size_t kMaxParameters = 64;

template <class ModuleClass>
struct ModuleHandle {
  using Module = ModuleClass;

  explicit ModuleHandle(Module&& made) : module(std::move(made)), parameters(module.state_dict()) {}

  Module module;
  // Names, shapes and views that callers are given pointers to.
  std::vector<std::pair<std::string, ConstTensorView>> parameters;
};

// Every parameter of the module exactly once.
template <class Module>
void assign_all(Module& module, const polyhead_parameter* parameters, size_t count,
                const char* function) {
  std::vector<std::string> missing;
  for (const auto& [name, view] : module.state_dict()) missing.push_back(name);
  for (size_t i = 0; i < count; ++i) {
    require_not_null(parameters[i].name, {function, "parameters[].name"});
    const std::string name = parameters[i].name;
    const auto found = std::find(missing.begin(), missing.end(), name);
    if (found == missing.end()) {
      fail({function, "parameters"}, "\"" + name + "\" is unknown or given twice",
           "the state dict's, each once");
    }
    missing.erase(found);
    module.set_parameter(name, required_view(&parameters[i].tensor, {function, name.c_str()}));
  }
  if (missing.empty()) return;
  std::string names;
  for (const std::string& name : missing) names += (names.empty() ? "" : ", ") + name;
  fail({function, "parameters"}, "missing: " + names, "the state dict's, each once");
}

template <class Handle>
void create(typename Handle::Module&& module, const polyhead_parameter* parameters, size_t count,
            Handle** out, const char* function) {
  if (count > kMaxParameters) {
    fail({function, "num_parameters"}, message("is ", count), message("at most ", kMaxParameters));
  }
  if (count > 0) {
    require_not_null(parameters, {function, "parameters"});
    assign_all(module, parameters, count, function);
  }
  *out = std::make_unique<Handle>(std::move(module)).release();
}

template <class Handle>
polyhead_status save(const Handle* handle, const char* path, const char* prefix,
                     const char* function) {
  return guarded(function, [&] {
    require_not_null(handle, {function, "module"});
    require_not_null(path, {function, "path"});
    handle->module.save(path, prefix == nullptr ? "" : prefix);
  });
}

template <class Handle>
polyhead_status num_parameters(const Handle* handle, size_t* out, const char* function) {
  return guarded(function, [&] {
    require_not_null(handle, {function, "module"});
    require_not_null(out, {function, "out"});
    *out = handle->parameters.size();
  });
}

template <class Handle>
polyhead_status parameter_at(const Handle* handle, size_t index, polyhead_parameter* out,
                             const char* function) {
  return guarded(function, [&] {
    require_not_null(handle, {function, "module"});
    require_not_null(out, {function, "out"});
    if (index >= handle->parameters.size()) {
      fail({function, "index"}, message("is ", index),
           message("less than ", handle->parameters.size()));
    }
    const auto& [name, view] = handle->parameters[index];
    *out = {.name = name.c_str(), .tensor = tensor_of(view)};
  });
}

template <class Handle>
polyhead_status get_parameter(const Handle* handle, const char* name, polyhead_tensor* out,
                              const char* function) {
  return guarded(function, [&] {
    require_not_null(handle, {function, "module"});
    require_not_null(name, {function, "name"});
    require_not_null(out, {function, "out"});
    for (const auto& [known, view] : handle->parameters) {
      if (known != name) continue;
      *out = tensor_of(view);
      return;
    }
    fail({function, "name"}, "got \"" + std::string(name) + "\"", "one of the state dict's");
  });
}

template <class Handle>
polyhead_status set_parameter(Handle* handle, const char* name, const polyhead_tensor* value,
                              const char* function) {
  return guarded(function, [&] {
    require_not_null(handle, {function, "module"});
    require_not_null(name, {function, "name"});
    handle->module.set_parameter(name, required_view(value, {function, "value"}));
  });
}

}  // namespace polyhead::c_api

struct polyhead_mha : polyhead::c_api::ModuleHandle<polyhead::MultiheadAttention> {
  using ModuleHandle::ModuleHandle;
};

struct polyhead_scratch : polyhead::c_api::ModuleHandle<polyhead::FromScratchMultiHeadAttention> {
  using ModuleHandle::ModuleHandle;
};
