using Ublkback.Block;
using Ublkback.Hooks;
using Ublkback.Images.Qcow2;
using Ublkback.Images.Raw;
using Ublkback.Nbd.Client;
using Ublkback.Parallax.Admin;
using Ublkback.Plugins;
using Ublkback.Rados.Rbd;

namespace Ublkback.Hosting;

/// <summary>Makes the catalog of what targets may name.</summary>
/// <param name="addOwn">Adds what a program of somebody's own brings.</param>
internal sealed class CatalogMaker(Action<BlockCatalog>? addOwn)
{
    /// <summary>Makes the catalog of the default host, for commands that use images and no guests.</summary>
    public BlockCatalog MakeForTools() => Make(HostEnvironment.Parse(HostEnvironment.Default), out _);

    /// <summary>Makes the catalog of a host, with what its plugins bring, and says what became of these.</summary>
    public BlockCatalog Make(HostEnvironment host, out IReadOnlyList<PluginReport> plugins)
    {
        BlockCatalog catalog = new BlockCatalog()
            .AddImage(RawSchemes.Raw)
            .AddImage(RawSchemes.Memory)
            .AddImage(RawSchemes.Null)
            .AddImage(VdiScheme.Vdi)
            .AddImage(RbdOpener.Scheme, RbdOpener.Open)
            .AddNbd()
            .AddStandardHooks();
        catalog.AddImage(Qcow2Scheme.For(catalog));
        addOwn?.Invoke(catalog);
        plugins = PluginFolder.Load(host.PluginFolder, catalog);
        return catalog;
    }
}
