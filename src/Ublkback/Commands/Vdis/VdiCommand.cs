using System.CommandLine;
using Ublkback.Hosting;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi</c></summary>
internal static class VdiCommand
{
    public static Command Make(CatalogMaker catalog) => new("vdi", """
        Virtual disk images with snapshots at any moment. A guest uses one by target=vdi:NAME, or reads a snapshot by
        vdi:NAME@SNAPSHOT.

        Examples:
          ublkback vdi create web 20G
          ublkback vdi create golden --from /images/golden.img
          ublkback vdi snapshot web before-upgrade      (while its guest runs)
          ublkback vdi clone golden@v1 web2
          ublkback vdi rollback web@before-upgrade
          ublkback vdi tree
        """)
    {
        VdiMakeCommands.MakeCreate(catalog),
        VdiShowCommands.MakeList(),
        VdiShowCommands.MakeInfo(),
        VdiShowCommands.MakeSnapshots(),
        VdiTreeCommand.Make(),
        VdiChangeCommands.MakeSnapshot(),
        VdiMakeCommands.MakeClone(),
        VdiChangeCommands.MakeRollback(),
        VdiChangeCommands.MakeResize(),
        VdiShowCommands.MakeDiff(),
        VdiChangeCommands.MakeDelete(),
        VdiMakeCommands.MakeImport(catalog),
        VdiMakeCommands.MakeExport(catalog),
        VdiCareCommands.MakeCollect(),
        VdiCareCommands.MakeCompact(),
        VdiCareCommands.MakeCheck(),
        VdiLockCommand.Make(),
    };
}
