using System.Diagnostics;
using System.Globalization;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.XenStore;

namespace Ublkback.EmulatedHost;

/// <summary>A disk as a guest's configuration describes it.</summary>
/// <param name="DeviceId">Device number, for instance 51712 for xvda.</param>
/// <param name="Target">What follows <c>target=</c>.</param>
/// <param name="Script">Path of the hotplug script.</param>
/// <param name="IsWritable"><c>access=rw</c>.</param>
/// <param name="Kind"><c>vbd</c>, or <c>vbd3</c> for backendtype=tap.</param>
/// <param name="IsCdRom"><c>devtype=cdrom</c>.</param>
/// <param name="AllowsDiscard"><c>discard</c>, as xl has it unless told otherwise.</param>
public sealed record DiskConfiguration(
    int DeviceId, string Target, string Script, bool IsWritable = true, string Kind = "vbd", bool IsCdRom = false,
    bool AllowsDiscard = true);

/// <summary>A disk that could not be attached; the message is what xl would show.</summary>
public sealed class ToolstackException(string message, Exception? cause = null)
    : Exception(message, cause);

/// <summary>Does with the store and the hotplug script what libxl does, in its order and with its time-outs.</summary>
/// <param name="layout">The host.</param>
/// <param name="store">A connection of dom0's.</param>
/// <param name="environment">Further variables for the script.</param>
public sealed class Toolstack(
    HostLayout layout, XenStoreClient store, IReadOnlyDictionary<string, string>? environment = null)
{
    private static readonly TimeSpan StateTimeout = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan ScriptTimeout = TimeSpan.FromSeconds(40);

    /// <summary>Makes a domain. Domains of one <paramref name="vm"/> are lives of the same virtual machine.</summary>
    public async Task CreateDomainAsync(int domid, string? vm = null)
    {
        await store.IntroduceAsync(domid).ConfigureAwait(false);
        string home = Home(domid);
        await store.TransactAsync(async transaction =>
        {
            string me = Number(domid);
            await transaction.WriteAsync(home, "").ConfigureAwait(false);
            await transaction.SetPermissionsAsync(home, "n0", $"r{me}").ConfigureAwait(false);
            await transaction.WriteAsync($"{home}/domid", me).ConfigureAwait(false);
            await transaction.WriteAsync($"{home}/vm", $"/vm/{vm ?? Guid.NewGuid().ToString()}").ConfigureAwait(false);
            await transaction.WriteAsync($"{home}/device", "").ConfigureAwait(false);
            return true;
        }).ConfigureAwait(false);
    }

    /// <summary>Destroys a domain with all its disks, asking nobody.</summary>
    public async Task DestroyDomainAsync(int domid, string script)
    {
        await store.ReleaseAsync(domid).ConfigureAwait(false);
        foreach (string device in await store.ListAsync($"{Home(domid)}/device/vbd").ConfigureAwait(false) ?? [])
        {
            int deviceId = int.Parse(device, CultureInfo.InvariantCulture);
            string frontend = FrontendConnection.FrontendPath(domid, deviceId);
            string? backend = await store.ReadAsync($"{frontend}/backend").ConfigureAwait(false);
            await store.RemoveAsync(frontend).ConfigureAwait(false);
            if (backend is not null) await RemoveBackendAsync(backend, script).ConfigureAwait(false);
        }

        await store.RemoveAsync(Home(domid)).ConfigureAwait(false);
    }

    /// <summary>Attaches a disk.</summary>
    /// <exception cref="ToolstackException">It failed; the device is removed again.</exception>
    public async Task AttachAsync(int domid, DiskConfiguration disk)
    {
        string backend = BackendPath(domid, disk);
        await store.TransactAsync(async transaction =>
        {
            await WriteBackendAsync(transaction, domid, disk, backend).ConfigureAwait(false);
            await WriteFrontendAsync(transaction, domid, disk, backend).ConfigureAwait(false);
            return true;
        }).ConfigureAwait(false);
        try
        {
            await FrontendConnection.WaitForStateAsync(store, backend, StateTimeout, "2").ConfigureAwait(false);
            await RunScriptAsync(disk.Script, "add", backend).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is TimeoutException or ToolstackException)
        {
            await DetachAsync(domid, disk).ConfigureAwait(false);
            throw new ToolstackException(failure.Message, failure);
        }
    }

    /// <summary>Detaches a disk; by force, without waiting for the guest.</summary>
    /// <exception cref="ToolstackException">The guest does not let go.</exception>
    public async Task DetachAsync(int domid, DiskConfiguration disk, bool force = false)
    {
        string backend = BackendPath(domid, disk);
        await store.TransactAsync(async transaction =>
        {
            await transaction.WriteAsync($"{backend}/online", "0").ConfigureAwait(false);
            if (await transaction.ReadAsync($"{backend}/state").ConfigureAwait(false) is not (null or "6"))
                await transaction.WriteAsync($"{backend}/state", "5").ConfigureAwait(false);
            return true;
        }).ConfigureAwait(false);
        if (force) await store.RemoveAsync(FrontendConnection.FrontendPath(domid, disk.DeviceId)).ConfigureAwait(false);
        try
        {
            await FrontendConnection.WaitForStateAsync(store, backend, StateTimeout, "6", null).ConfigureAwait(false);
        }
        catch (TimeoutException failure) when (!force)
        {
            throw new ToolstackException(failure.Message, failure);
        }

        await store.RemoveAsync(FrontendConnection.FrontendPath(domid, disk.DeviceId)).ConfigureAwait(false);
        await RemoveBackendAsync(backend, disk.Script).ConfigureAwait(false);
    }

    /// <summary>The backend directory of a disk.</summary>
    public static string BackendPath(int domid, DiskConfiguration disk) =>
        $"{Home(0)}/{string.Create(CultureInfo.InvariantCulture, $"backend/{disk.Kind}/{domid}/{disk.DeviceId}")}";

    private static string Home(int domid) => string.Create(CultureInfo.InvariantCulture, $"/local/domain/{domid}");

    private static string Number(int value) => value.ToString(CultureInfo.InvariantCulture);

    private static async Task WriteBackendAsync(IXenStore store, int domid, DiskConfiguration disk, string path)
    {
        await store.WriteAsync(path, "").ConfigureAwait(false);
        await store.SetPermissionsAsync(path, "n0", $"r{domid}").ConfigureAwait(false);
        (string, string)[] nodes =
        [
            ("frontend", FrontendConnection.FrontendPath(domid, disk.DeviceId)), ("frontend-id", Number(domid)),
            ("params", disk.Kind == "vbd3" ? $"aio:{disk.Target}" : disk.Target), ("script", disk.Script),
            ("online", "1"), ("removable", disk.IsCdRom ? "1" : "0"), ("bootable", "1"), ("state", "1"),
            ("dev", Number(disk.DeviceId)), ("type", "phy"), ("mode", disk.IsWritable ? "w" : "r"),
            ("device-type", disk.IsCdRom ? "cdrom" : "disk"), ("discard-enable", disk.AllowsDiscard ? "1" : "0"),
        ];
        foreach ((string name, string value) in nodes)
            await store.WriteAsync($"{path}/{name}", value).ConfigureAwait(false);
    }

    private static async Task WriteFrontendAsync(IXenStore store, int domid, DiskConfiguration disk, string backend)
    {
        string path = FrontendConnection.FrontendPath(domid, disk.DeviceId);
        await store.WriteAsync(path, "").ConfigureAwait(false);
        await store.SetPermissionsAsync(path, $"n{domid}", "r0").ConfigureAwait(false);
        (string, string)[] nodes =
        [
            ("backend", backend), ("backend-id", "0"), ("state", "1"), ("virtual-device", Number(disk.DeviceId)),
            ("device-type", disk.IsCdRom ? "cdrom" : "disk"),
        ];
        foreach ((string name, string value) in nodes)
            await store.WriteAsync($"{path}/{name}", value).ConfigureAwait(false);
    }

    private async Task RemoveBackendAsync(string backend, string script)
    {
        try
        {
            await RunScriptAsync(script, "remove", backend).ConfigureAwait(false);
        }
        catch (ToolstackException)
        {
            // libxl goes on as well.
        }

        await store.RemoveAsync(backend).ConfigureAwait(false);
    }

    private async Task RunScriptAsync(string script, string action, string backend)
    {
        ProcessStartInfo start = new(script, [action]) { RedirectStandardError = true, RedirectStandardInput = true };
        start.Environment["XENBUS_PATH"] = backend[(Home(0).Length + 1)..];
        start.Environment["XENBUS_TYPE"] = "vbd";
        start.Environment["XENBUS_BASE_PATH"] = "backend";
        start.Environment["script"] = script;
        start.Environment["UBLKBACK_HOST"] = layout.Root;
        foreach ((string name, string value) in environment ?? new Dictionary<string, string>())
            start.Environment[name] = value;
        using Process process = Process.Start(start) ?? throw new ToolstackException($"cannot run {script}");
        process.StandardInput.Close();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        using CancellationTokenSource limit = new(ScriptTimeout);
        try
        {
            await process.WaitForExitAsync(limit.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw new ToolstackException($"{script} {action} took longer than {ScriptTimeout.TotalSeconds} s");
        }

        if (process.ExitCode == 0) return;
        string? reason = await store.ReadAsync($"{backend}/hotplug-error").ConfigureAwait(false);
        throw new ToolstackException(
            reason ?? $"{script} {action} exited with {process.ExitCode}: {await errors.ConfigureAwait(false)}");
    }
}
