"""Shows that scripts/check_includes.py finds what it is there to find, in a small tree made for the purpose."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).resolve().parents[1] / "scripts" / "check_includes.py"

GOOD = {
    "src/base/error.h": "#pragma once\n#include <string>\n",
    "src/base/CMakeLists.txt": "atom_module(base LIBS fmt::fmt)\n",
    "src/tensor/tensor.h": '#include "base/error.h"\n',
    "src/tensor/CMakeLists.txt": "atom_module(tensor DEPS base)\n",
    "src/kernels/ops.h": '#include "tensor/tensor.h"\n',
    "src/kernels/CMakeLists.txt": "atom_module(kernels DEPS tensor LIBS PkgConfig::openblas)\n",
    "src/model/decoder.cpp": '#include <vector>\n#include "base/error.h"\n#include "kernels/ops.h"\n',
    "src/model/decoder_test.cpp": '#include "kernels/ops.h"\n',
    "apps/atom/main.cpp": '#include "arguments.h"\n#include "model/decoder.h"\n',
    "apps/atom/arguments.h": "",
    "src/model/decoder.h": "",
}


class CheckIncludes(unittest.TestCase):
    def run_on(self, changes):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**GOOD, **changes}.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            result = subprocess.run([sys.executable, CHECK, folder], capture_output=True, text=True, check=False)
            return result.returncode, result.stdout

    def expect(self, changes, *words):
        code, out = self.run_on(changes)
        self.assertEqual(code, 1, out)
        self.assertEqual(len(out.splitlines()), 1, out)
        for word in words:
            self.assertIn(word, out)

    def test_good_tree_passes(self):
        self.assertEqual(self.run_on({})[0], 0)

    def test_upward_include(self):
        self.expect({"src/tensor/view.h": '\n#include "kernels/ops.h"\n'}, "src/tensor/view.h:2", "kernels")

    def test_upward_include_in_a_unit_test(self):
        self.expect({"src/base/error_test.cpp": '#include "tensor/tensor.h"\n'}, "base must not include tensor")

    def test_sideways_include(self):
        self.expect({"src/kernels/gemm.h": '#include "text/bpe.h"\n', "src/text/bpe.h": ""}, "must not include text")

    def test_include_not_rooted_at_src(self):
        self.expect({"src/tensor/view.h": '#include "tensor.h"\n'}, "not rooted")
        self.expect({"src/tensor/view.h": '#include "../base/error.h"\n'}, "not in src/")

    def test_missing_file(self):
        self.expect({"src/tensor/view.h": '#include "base/nothing.h"\n'}, "base/nothing.h")

    def test_angle_brackets(self):
        self.expect({"src/tensor/view.h": "#include <base/error.h>\n"}, "in quotes")

    def test_unknown_folder(self):
        self.expect({"src/utils/misc.h": ""}, "known folder")

    def test_upward_link(self):
        self.expect({"src/base/CMakeLists.txt": "atom_module(base DEPS tensor LIBS fmt::fmt)\n"}, "must not link tensor")

    def test_long_file(self):
        self.assertEqual(self.run_on({"src/base/long.h": "\n" * 600})[0], 0)
        self.expect({"src/base/long.h": "\n" * 601}, "601 lines")


if __name__ == "__main__":
    unittest.main()
