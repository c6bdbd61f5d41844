using System.CommandLine;
using Ublkback.Block;
using Ublkback.Commands.Disks;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.ImageTools;
using Ublkback.Linux.Messages;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary>What the commands for VDIs share: a store that is open, and what goes wrong as one line.</summary>
internal static class VdiSession
{
    /// <summary>The option that says which store.</summary>
    public static Option<string?> Store() => new("--store")
    {
        Description = "The store: file:FOLDER, or rados:POOL?conf=/path/ceph.conf&id=USER&timeout=SECONDS. Default: "
            + "$UBLKBACK_VDI_STORE, else file:/var/lib/ublkback/vdi.",
        DefaultValueFactory =
            _ => Environment.GetEnvironmentVariable("UBLKBACK_VDI_STORE") is { Length: > 0 } store ? store : null,
    };

    /// <summary>Opens a store and runs something on it.</summary>
    /// <exception cref="UserException">It could not be done.</exception>
    public static async Task<int> RunAsync(string? store, Func<VdiAdmin, Task<int>> action, bool makes = false)
    {
        TellWaits();
        using Worker worker = new("vdi");
        using VdiAdmin opened = VdiAdmin.Open(
            store, makes, worker, isReadOnly => ToolOpening.For("ublkback vdi", isReadOnly));
        return await action(opened).ConfigureAwait(false);
    }

    /// <summary>
    /// Asks the daemon to tell guests the new sizes of their disks. A guest that uses its disk notices by itself.
    /// </summary>
    public static async Task TellGuestAsync()
    {
        try
        {
            await ControlClient.AskAsync(
                HostEnvironment.Parse(HostEnvironment.Default), ResizeCommand.Control, new ResizeRequest())
                .ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is NoDaemonException or RefusedMessageException)
        {
            // Another program holds the VDI.
        }
    }

    /// <summary>From now on people are told what is waited for, when that takes long.</summary>
    public static void TellWaits() => WaitNotice.Sink = what => Console.Error.WriteLine($"ublkback: {what}");

    /// <summary>A VDI of a store as a target. The store's own options are the target's.</summary>
    public static string TargetOf(string name, string? store) =>
        store is null ? $"{VdiOpener.Scheme}:{name}" : $"{VdiOpener.Scheme}:{name}?store={store.Replace('?', '&')}";
}
