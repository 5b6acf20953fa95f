#include "output_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>

#include <polyhead/error.h>
#include "base/escape.h"
#include "errors.h"
#include "interrupt.h"
#include "text.h"

namespace polyhead::cli {
namespace {

namespace fs = std::filesystem;

std::string system_text() { return std::strerror(errno); }

// The file itself where `path` is a link to one: a rename would replace the link.
fs::path resolved(const std::string& path) {
  std::error_code error;
  const fs::path target = fs::canonical(path, error);
  return error ? fs::path(path) : target;
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

bool same_file(const std::string& a, const std::string& b) {
  std::error_code error;
  if (fs::equivalent(a, b, error) && !error) return true;
  // Files that are not there yet are the same by name, in the same folder.
  return fs::path(a).filename() == fs::path(b).filename() &&
         fs::equivalent(folder_of(a), folder_of(b), error) && !error;
}

void check_writable(const OutputFile& file) {
  const fs::path path = resolved(file.path);
  const std::string who = file.flag + " " + escaped(file.path) + ": ";
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    throw ResourceError(who + (fs::is_directory(status) ? "is a folder" : "is not a regular file") +
                        "; need the name of a file to write");
  }
  const fs::path folder = folder_of(path);
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    throw ResourceError(who + "cannot write in " + escaped(folder.string()) + ": " + system_text());
  }
}

// One file on its way: written under another name, then moved over the target, which is kept under
// a third name until all files have arrived.
class Replacement {
 public:
  Replacement(const OutputFile& file, size_t index) : file_(file), target_(resolved(file.path)) {
    const std::string name =
        ".polyhead-" + std::to_string(::getpid()) + "-" + std::to_string(index);
    staged_ = folder_of(target_) / (name + ".part");
    backup_ = folder_of(target_) / (name + ".old");
  }
  ~Replacement() {
    ::unlink(staged_.c_str());
    if (has_backup_) ::unlink(backup_.c_str());
  }
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  void write() const {
    try {
      file_.write(staged_.string());
    } catch (const IoError& error) {
      const std::string what = without_function(error.what());
      throw ResourceError(file_.flag + " " +
                          replaced(what, escaped(staged_.string()), escaped(file_.path)));
    }
    struct stat before = {};
    if (::stat(target_.c_str(), &before) != 0) return;
    // As if it had been overwritten in place; on failure the new file's own permissions stay.
    if (::chmod(staged_.c_str(), before.st_mode & 0777) != 0) return;
  }

  void move() {
    // Without a hard link (some file systems have none) a failed rename cannot be undone for files
    // that were there before; new ones are still taken away.
    std::error_code error;
    existed_ = fs::exists(target_, error);
    has_backup_ = existed_ && ::link(target_.c_str(), backup_.c_str()) == 0;
    if (::rename(staged_.c_str(), target_.c_str()) != 0) {
      throw ResourceError(file_.flag + " " + escaped(file_.path) +
                          ": cannot rename: " + system_text());
    }
    moved_ = true;
  }

  void undo() {
    if (!moved_) return;
    if (has_backup_) ::rename(backup_.c_str(), target_.c_str());
    if (!existed_) ::unlink(target_.c_str());
  }

 private:
  const OutputFile& file_;
  fs::path target_, staged_, backup_;
  bool existed_ = false, has_backup_ = false, moved_ = false;
};

void move_all(std::vector<std::unique_ptr<Replacement>>& replacements) {
  try {
    for (auto& replacement : replacements) replacement->move();
  } catch (...) {
    for (auto& replacement : replacements) replacement->undo();
    throw;
  }
}

}  // namespace

void check_output_paths(const std::vector<OutputFile>& files,
                        const std::vector<std::string>& inputs) {
  for (size_t i = 0; i < files.size(); ++i) {
    if (files[i].path == "-") {
      throw UsageError(files[i].flag + ": got \"-\"; results go to files, need the name of one");
    }
    for (size_t j = 0; j < i; ++j) {
      if (same_file(files[i].path, files[j].path)) {
        throw UsageError(files[i].flag + ": is the file of " + files[j].flag +
                         "; each result needs a file of its own");
      }
    }
    for (const std::string& input : inputs) {
      if (same_file(files[i].path, input)) {
        throw UsageError(files[i].flag + ": " + escaped(files[i].path) +
                         " is also read; results never replace an input");
      }
    }
    check_writable(files[i]);
  }
}

void write_output_files(const std::vector<OutputFile>& files) {
  const DeferSignals deferred;
  std::vector<std::unique_ptr<Replacement>> replacements;
  for (size_t i = 0; i < files.size(); ++i) {
    replacements.push_back(std::make_unique<Replacement>(files[i], i));
    replacements.back()->write();
    deferred.check();
  }
  move_all(replacements);
}

}  // namespace polyhead::cli
