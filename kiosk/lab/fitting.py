"""Whether what a record gives fits the graph that it is to be applied to: names and lengths."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from kiosk.lab.assemble import Plan
from kiosk.lab.equalise import streams
from kiosk.lab.graph import Net
from kiosk.lab.prepare import float_graph
from kiosk.lab.record import Record
from kiosk.lab.written import Node


def check_fit(record: Record, base: onnx.ModelProto) -> None:
    """UserError, by file and key, for the first name that the graph has not, or wrong length.

    Before any file is made, so that a record that does not fit leaves none.
    """
    _check_factors(record.sidecar["factors"], Net(base))
    graph = float_graph(base, record.factors)
    net = Net(graph)
    for number, remake in enumerate(record.remakes):
        if remake.plan is None:
            continue
        _check_exclude(record.listed["files"].items()[number]["recipe"], net)
        _check_corrections(record.sidecar["corrections"][remake.plan.variant], net)
        _check_ranges(record.ranges_node(remake.plan), net, remake.plan)


def _check_factors(factors: Node, net: Net) -> None:
    sizes = {}
    for stream in streams(net):
        writer = stream.writers[0]
        # Rows of a convolution, or the gammas of a normalisation.
        sizes[stream.tensors[0]] = net.value(writer.input[1]).shape[0]
    _check_lengths(factors, sizes, "the first tensor of a stream of the graph")


def _check_corrections(moves: Node, net: Net) -> None:
    sizes = {
        node.output[0]: net.value(node.input[2]).size
        for node in net.convolutions()
        if len(node.input) > 2 and net.is_constant(node.input[2])
    }
    _check_lengths(moves, sizes, "a layer of the graph with a bias")


def _check_lengths(given: Node, sizes: Mapping[str, int], what: str) -> None:
    for name, values in given.members():
        if name not in sizes:
            raise values.refuse(what, "a name that the graph has not")
        if len(values.items()) != sizes[name]:
            raise values.refuse(f"a list of {sizes[name]}, one for each channel")


def _check_exclude(recipe: Node, net: Net) -> None:
    names = {node.name for node in net.nodes}
    for each in recipe["exclude"].items() if "exclude" in recipe else ():
        if each.text() not in names:
            raise each.refuse("the name of a node of the graph")


def _check_ranges(ranges: Node, net: Net, plan: Plan) -> None:
    data = ranges["data"]
    inputs = {value.name for value in net.graph.input}
    for name, entry in data.members():
        if name not in net.made and name not in inputs:
            raise entry.refuse("a tensor of the graph", "a name that the graph has not")
    recipe = plan.recipe
    for node in net.nodes:
        if node.op_type not in recipe.op_types or node.name in recipe.exclude:
            continue
        for name in (*node.input[:2], *node.output):
            if name and not net.is_constant(name):
                data[name]
