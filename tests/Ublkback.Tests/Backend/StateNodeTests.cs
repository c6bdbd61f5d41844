using NUnit.Framework;
using Ublkback.Backend.Xenbus;
using Ublkback.EmulatedHost.Frontend;

namespace Ublkback.Tests.Backend;

/// <summary>Toolstacks that write a device's nodes one by one, and remove them so.</summary>
public sealed class StateNodeTests : BackendFixture
{
    private const int Device = 51712;

    [Test]
    public async Task A_device_is_found_when_its_state_comes_with_what_was_written_until_then()
    {
        string frontend = FrontendConnection.FrontendPath(1, Device);
        await Store.WriteAsync($"{frontend}/state", "1");
        foreach ((string node, string value) in new[]
        {
            ("script", "/etc/xen/scripts/block-ublkback"), ("frontend", frontend), ("params", "gate:early"),
            ("online", "1"), ("mode", "r"),
        })
        {
            await WriteBackendAsync(Device, node, value);
        }

        VbdAddress address = new("vbd", 1, Device);
        await Vbds.LookAtAsync(address);
        Assert.That(Vbds.Vbds, Is.Empty);
        await WriteBackendAsync(Device, "params", "gate:late");
        await WriteBackendAsync(Device, "mode", "w");
        await WriteBackendAsync(Device, "state", "1");
        await Vbds.LookAtAsync(address);
        Assert.That(Vbds.Find(address)!.Target, Is.EqualTo("gate:late"));
        Assert.That(Vbds.Find(address)!.Summarize().IsReadOnly, Is.False);

        await Store.RemoveAsync($"/local/domain/0/backend/vbd/1/{Device}/state");
        using CancellationTokenSource limit = new(Soon);
        while (Vbds.Find(address) is not null) await Task.Delay(10, limit.Token);
        for (int i = 0; i < 20; i++)
        {
            await Vbds.LookAtAsync(address);
            Assert.That(Vbds.Vbds, Is.Empty, "it is not found again without a state");
        }
    }
}
