"""Writes a case for `promtool test rules`: fifty pods on pod-lifetime disks, and one outage of Cello for two hours.

Steady traffic, an outage from minute 20 on, a backlog that catches up from minute 140 on: what fires, before Alertmanager
mutes anything, is one alert a cause and not one a pod, and nothing comes after.
"""

PODS = 50
# For each series of a pod: its values, a minute apart.
SERIES = {
    'cello_relay_upstream_requests_total{%s, operation="events"}': "0+600x20 12000+2x120 12240+600x160",
    'cello_relay_upstream_request_failures_total{%s, reason="http_5xx"}': "0x20 0+2x120 240x160",
    "cello_relay_outbox_oldest_event_timestamp_seconds{%s}": "0x20 1200x120 0x160",
    'cello_relay_outbox_info{%s, durability="pod"}': "1x300",
    "cello_relay_forward_paused{%s}": "0x300",
    'cello_relay_forward_held{%s, reason="credentials"}': "0x300",
    'cello_relay_delivery_latency_seconds_bucket{%s, le="300"}': "0+600x20 12000x120 12000x20 12000+600x140",
    "cello_relay_delivery_latency_seconds_count{%s}": "0+600x20 12000x120 12000+3600x20 84000+600x140",
    'up{job="cello-relay", %s}': "1x300",
}
WARNINGS = ["CelloRelayUpstreamFailing", "CelloRelayEphemeralBacklog"]
STALLED = [("CelloRelayOutboxStalled", "warning"), ("CelloRelayOutboxStalled", "critical")]
FIRING = {
    "18m": [],
    "38m": [(name, "warning") for name in WARNINGS],
    "135m": [(name, "warning") for name in WARNINGS] + STALLED,
    "155m": [],
    "290m": [],
}


def main():
    print("rule_files: [rules.yaml]\nevaluation_interval: 1m\ngroup_eval_order:")
    print("  [cello-relay.recording, cello-relay.delivery, cello-relay.outbox, cello-relay.process]")
    print("tests:\n  - name: fifty pods and one outage\n    interval: 1m\n    input_series:")
    for pod in range(PODS):
        for series, values in SERIES.items():
            name = series % f'namespace="shop", pod="p{pod}"'
            print(f"      - {{series: '{name}', values: '{values}'}}")
    print("    promql_expr_test:")
    for at, alerts in FIRING.items():
        print(f"      - expr: ALERTS{{alertstate=\"firing\"}}\n        eval_time: {at}\n        exp_samples:")
        for name, severity in alerts:
            labels = f'alertname="{name}", alertstate="firing", severity="{severity}", namespace="shop", service="cello-relay"'
            print(f"          - {{labels: 'ALERTS{{{labels}}}', value: 1}}")


if __name__ == "__main__":
    main()
