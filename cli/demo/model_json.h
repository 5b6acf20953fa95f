// The small JSON files of a model folder.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>

#include <polyhead/error.h>
#include "base/message.h"

namespace polyhead::cli {

// At most 64 MB, strict JSON. Throws IoError that names the file.
nlohmann::json load_model_json(const std::string& path);

// What a field of type T must be, in words.
template <class T>
constexpr const char* json_need() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_integral_v<T>) return "a whole number";
  if constexpr (std::is_floating_point_v<T>) return "a number";
  if constexpr (std::is_same_v<T, std::string>) return "a text";
  return "an object of whole numbers";
}

// Stricter than the JSON library, which reads 1.5 and true as whole numbers.
template <class T>
bool json_is(const nlohmann::json& value) {
  if constexpr (std::is_same_v<T, bool>) return value.is_boolean();
  if constexpr (std::is_integral_v<T>) return value.is_number_integer();
  if constexpr (std::is_floating_point_v<T>) return value.is_number();
  if constexpr (std::is_same_v<T, std::string>) return value.is_string();
  return true;
}

// A field that must be there with the type asked for. Throws IoError that names file and field.
template <class T>
T json_field(const nlohmann::json& object, const std::string& path, const char* field) {
  const auto at = object.find(field);
  if (at == object.end()) throw IoError(message(path, ": ", field, " is missing"));
  try {
    if (json_is<T>(*at)) return at->get<T>();
  } catch (const nlohmann::json::exception&) {  // a type inside it
  }
  constexpr size_t kShown = 60;
  const std::string found = at->dump(-1, ' ', true);  // ASCII, controls written out
  throw IoError(
      message(path, ": ", field, " is ", found.substr(0, kShown), "; must be ", json_need<T>()));
}

// The same, but it may be left out.
template <class T>
T json_field_or(const nlohmann::json& object, const std::string& path, const char* field,
                const T& otherwise) {
  return object.contains(field) ? json_field<T>(object, path, field) : otherwise;
}

}  // namespace polyhead::cli
