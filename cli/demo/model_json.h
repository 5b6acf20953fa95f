// The small JSON files of a model folder.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include <polyhead/error.h>
#include "base/message.h"

namespace polyhead::cli {

// At most 64 MB, strict JSON. Throws IoError that names the file.
nlohmann::json load_model_json(const std::string& path);

// A field that must be there with the type asked for. Throws IoError that names file and field.
template <class T>
T json_field(const nlohmann::json& object, const std::string& path, const char* field) {
  const auto at = object.find(field);
  if (at == object.end()) throw IoError(message(path, ": ", field, " is missing"));
  try {
    return at->get<T>();
  } catch (const nlohmann::json::exception& problem) {
    throw IoError(
        message(path, ": ", field, " is ", at->dump().substr(0, 60), "; ", problem.what()));
  }
}

}  // namespace polyhead::cli
