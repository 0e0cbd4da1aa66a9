# SPDX-License-Identifier: Apache-2.0

"""A real Prometheus, and a real node_exporter."""

from collections.abc import Mapping
import json
import os
import signal
import socket
import subprocess
from typing import Any
import urllib.parse

import fixtures
import yaml

from tests.support import exporters
from tests.support import processes


def free_port() -> int:
    """Find a port that nobody listens at just now."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        port: int = server.getsockname()[1]
    return port


class _Server(fixtures.Fixture):
    """A program that serves until it is ended.

    :ivar url: of the program
    """

    ready = '/'

    def command(self, address: str) -> list[str]:
        """Give the command that listens there."""
        raise NotImplementedError

    def _setUp(self) -> None:
        address = f'127.0.0.1:{free_port()}'
        self.url = f'http://{address}'
        self.target = address
        self.process = subprocess.Popen(
            self.command(address),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={'PATH': processes.PATH},
        )
        self.addCleanup(self.end)
        if not processes.wait_for(self._is_ready):
            raise RuntimeError(f'{self.command(address)} does not answer')

    def _is_ready(self) -> bool:
        try:
            exporters.fetch(self.url + self.ready)
        except OSError:
            return False
        return True

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


class NodeExporter(_Server):
    """A node_exporter that reads what is in a directory, and nothing else."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = directory

    def command(self, address: str) -> list[str]:
        """Give the command that listens there."""
        return [
            'prometheus-node-exporter',
            '--collector.disable-defaults',
            '--collector.textfile',
            f'--collector.textfile.directory={self._directory}',
            f'--web.listen-address={address}',
        ]


class Prometheus(_Server):
    """A Prometheus that scrapes and evaluates rules some times a second."""

    ready = '/-/ready'

    def __init__(
        self, directory: str, rules: Any, targets: Mapping[str, list[str]]
    ) -> None:
        """Prepare one.

        :param directory: for its files
        :param rules: as in a file of rules
        :param targets: addresses by the name of their job
        """
        super().__init__()
        self._directory = directory
        rule_file = os.path.join(directory, 'rules.yml')
        with open(rule_file, 'w') as file:
            yaml.safe_dump(rules, file)
        scraped = [
            {'job_name': job, 'static_configs': [{'targets': addresses}]}
            for job, addresses in targets.items()
        ]
        config = {
            'global': {
                'scrape_interval': '400ms',
                'scrape_timeout': '400ms',
                'evaluation_interval': '200ms',
            },
            'rule_files': [rule_file],
            'scrape_configs': scraped,
        }
        with open(os.path.join(directory, 'prometheus.yml'), 'w') as file:
            yaml.safe_dump(config, file)

    def command(self, address: str) -> list[str]:
        """Give the command that listens there."""
        return [
            'prometheus',
            f'--config.file={self._directory}/prometheus.yml',
            f'--storage.tsdb.path={self._directory}/data',
            f'--web.listen-address={address}',
        ]

    def _get(self, path: str) -> Any:
        return json.loads(exporters.fetch(self.url + path))['data']

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask for the present values of an expression.

        :raises OSError: it is none
        """
        quoted = urllib.parse.quote(expression)
        found = self._get(f'/api/v1/query?query={quoted}')['result']
        return list(found)

    def firing(self) -> list[dict[str, Any]]:
        """Give the alerts that fire, with labels and annotations."""
        return [
            alert
            for alert in self._get('/api/v1/alerts')['alerts']
            if alert['state'] == 'firing'
        ]

    def labels(self, alert: str) -> list[dict[str, str]]:
        """Give the labels of an alert that fires, once for each."""
        return [
            found['labels']
            for found in self.firing()
            if found['labels']['alertname'] == alert
        ]
