"""Files of the package import each other without cycles, imports for type checking included."""

import grimp
import networkx


def test_no_import_cycles() -> None:
    graph = grimp.build_graph("likely", include_external_packages=False)
    imports = networkx.DiGraph()
    for module in graph.modules:
        imports.add_edges_from((module, imported) for imported in graph.find_modules_directly_imported_by(module))
    cycles = [sorted(files) for files in networkx.strongly_connected_components(imports) if len(files) > 1]
    assert cycles == []
