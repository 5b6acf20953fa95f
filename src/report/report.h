// What <polyhead/report.h> writes, as text.
#pragma once

#include <string>

#include <polyhead/report.h>

namespace polyhead {

// Throws as write_report does.
std::string report_html(const ReportData& data);

}  // namespace polyhead
